"""Systems, the rows of the tables: their ids, the protocol they follow, the registry of families, and VAR's family."""
