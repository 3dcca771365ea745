"""Everything with learned weights."""
