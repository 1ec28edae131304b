"""Model -> Plan: the axis, the walk, and every blocker by name."""
