"""An evaluation whose groups of cases are run by the pods of a cluster, each of which takes its share."""
