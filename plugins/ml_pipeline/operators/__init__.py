"""Operators: deferrable, adopting, stopping what they started. Import them from their modules."""
