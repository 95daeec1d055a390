"""What a row of a table is: ids, the protocol that every system follows, the families that are installed, and VAR's."""
