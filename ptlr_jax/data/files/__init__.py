"""Files of data sets: annotations, text, features, pickled arrays."""
