"""Publishers' files read in their own layout under one root; one module a data set."""
