"""What can be said of time: lengths, facts, windows, padding, and plans of them. Pure data and arithmetic."""
