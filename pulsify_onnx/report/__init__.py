"""What people and scripts read of a conversion: sidecar, tables, critical path, supported operators."""
