"""Operators that never stream, each with its reason. Where nothing streams through them they are kept as they are."""

from __future__ import annotations

from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB, rule
from pulsify_onnx.rules.kit.traits import Trait, declare

DATA_DEPENDENT = "its result has as many entries as the values call for, so nobody can tell which frame they belong to"
LENGTHS_HINT = "keep all frames and mark the wanted ones by a mask, or cut the model there"
RANDOM = "it draws random numbers, so no two runs agree"
RANDOM_HINT = "pass the noise as an input of the model"
SEQUENCE = "it works on a sequence of tensors, which has no stream axis"
SEQUENCE_HINT = "export with tensors: Concat, Split and Slice instead of sequences"
OPTIONAL = "it works on an optional value, which has no stream axis"
OPTIONAL_HINT = "export with the value always present"
TEXT = "it works on text, and no state can remember text"
TEXT_HINT = "turn text into numbers before the model"
LOSS = "it is a training loss, which compares with labels and averages over the whole stream"
LOSS_HINT = "export the model in evaluation mode, without its loss"
RANGE = "it quantises by the smallest and largest value of the whole recording, so every frame needs the last"
RANGE_HINT = "use static quantisation, with scales and zero points fixed by calibration"
ATTENTION = "every frame may look at every other one, also at those to come"
ATTENTION_HINT = "limit attention to a window over the past"
CACHE = (
    "it counts its keys from the lengths told at run time (seqlens_k, total_sequence_length), also those of "
    "local_window_size, and so "
    "can't attend to a window whose first keys are not there yet"
)
CACHE_HINT = "export grouped queries by Expand, or as the Attention operator of opset 23, behind a mask of positions"
MODEL = "it is a whole decoding loop with subgraphs, whose length the values decide"
MODEL_HINT = "stream the encoder and run the decoding outside the model"
LAYOUT = "it is an internal layout of onnxruntime's optimizer, tied to one processor"
LAYOUT_HINT = "convert the model before it is optimized (optimization level basic at most)"
GPU = "onnxruntime has no CPU kernel for it, so its stream could not be verified"
GPU_HINT = "export for the CPU, or as standard operators"

ALWAYS = (RANDOM, SEQUENCE, OPTIONAL)
"""Reasons that hold for any input."""

_TABLE: tuple[tuple[str, str, str, str], ...] = (
    *(("", name, DATA_DEPENDENT, LENGTHS_HINT) for name in ("Compress", "NonZero", "Unique", "NonMaxSuppression")),
    (CONTRIB, "Unique", DATA_DEPENDENT, LENGTHS_HINT),
    *(
        ("", name, RANDOM, RANDOM_HINT)
        for name in (
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        )
    ),
    (CONTRIB, "SampleOp", RANDOM, RANDOM_HINT),
    *(
        ("", name, SEQUENCE, SEQUENCE_HINT)
        for name in (
            "ConcatFromSequence",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        )
    ),
    *(("", name, OPTIONAL, OPTIONAL_HINT) for name in ("Optional", "OptionalGetElement", "OptionalHasElement")),
    *(("", name, TEXT, TEXT_HINT) for name in ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit")),
    *((CONTRIB, name, TEXT, TEXT_HINT) for name in ("Tokenizer", "MurmurHash3", "WordConvEmbedding")),
    (
        "",
        "TfIdfVectorizer",
        "it counts groups of words over the whole recording",
        "count over windows of fixed length outside the model",
    ),
    ("", "ImageDecoder", "it decodes a compressed image, whose bytes are no frames", "decode images before the model"),
    *(("", name, LOSS, LOSS_HINT) for name in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")),
    ("", "DynamicQuantizeLinear", RANGE, RANGE_HINT),
    *((CONTRIB, name, RANGE, RANGE_HINT) for name in ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM")),
    (
        "",
        "AffineGrid",
        "its grid spans the whole recording from -1 to 1, so its spacing follows the length of the stream",
        "compute the grid outside the model, for a fixed size",
    ),
    (
        "",
        "MaxUnpool",
        "its indices are positions in the whole recording",
        "upsample by Resize or ConvTranspose instead",
    ),
    (
        "",
        "TensorScatter",
        "it writes frames into a cache at places that are told at run time",
        "keep the history by a convolution or a concatenation",
    ),
    *(
        (CONTRIB, name, ATTENTION, ATTENTION_HINT)
        for name in ("Attention", "DecoderMaskedMultiHeadAttention", "QAttention", "SparseAttention", "AttnLSTM")
    ),
    (CONTRIB, "GroupQueryAttention", CACHE, CACHE_HINT),
    *(
        (CONTRIB, name, MODEL, MODEL_HINT)
        for name in (
            "BeamSearch",
            "GreedySearch",
            "Sampling",
            "WhisperBeamSearch",
            "BifurcationDetector",
            "NGramRepeatBlock",
            "DynamicTimeWarping",
        )
    ),
    (
        CONTRIB,
        "EmbedLayerNormalization",
        "it adds positions and a mask for sentences of one fixed length",
        "export as Gather, Add and LayerNormalization",
    ),
    (
        CONTRIB,
        "QEmbedLayerNormalization",
        "it adds positions and a mask for sentences of one fixed length",
        "export as Gather, Add and LayerNormalization",
    ),
    (CONTRIB, "CropAndResize", "it resamples boxes of the whole recording", "crop outside the model"),
    *(
        ("com.microsoft.nchwc", name, LAYOUT, LAYOUT_HINT)
        for name in (
            "AveragePool",
            "Conv",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "MaxPool",
            "ReorderInput",
            "ReorderOutput",
            "Upsample",
        )
    ),
    *(
        (CONTRIB, name, GPU, GPU_HINT)
        for name in (
            "BiasAdd",
            "BiasSplitGelu",
            "GemmFastGelu",
            "GroupNorm",
            "NhwcConv",
            "NhwcFusedConv",
            "PackedAttention",
            "PackedMultiHeadAttention",
            "PagedAttention",
            "RelativePositionBias",
            "GatedRelativePositionBias",
            "RemovePadding",
            "RestorePadding",
            "SkipGroupNorm",
            "Rfft",
            "Irfft",
        )
    ),
)


def _refused(domain: str, name: str, reason: str, hint: str) -> None:
    def refusal(node: Node) -> Outcome:
        refuse(reason, hint)

    kept = (
        "Never, also where nothing streams through it."
        if reason in ALWAYS
        else "Kept where nothing streams through it."
    )
    refusal.__doc__ = f"{kept}\n\nRefuses: a stream, because {reason}."
    rule(name, versions=None, domain=domain)(refusal)
    if reason == RANDOM:
        declare(Trait.RANDOM, name, domain=domain)


for _row in _TABLE:
    _refused(*_row)

declare(Trait.CACHES, "Attention", domain=CONTRIB, value=((4, 1),))
declare(Trait.CACHES, "GroupQueryAttention", domain=CONTRIB, value=((3, 1), (4, 2)))
