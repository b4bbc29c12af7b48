"""From a file to its label map: preprocessed, run through a network, and brought back to the file's own grid."""
