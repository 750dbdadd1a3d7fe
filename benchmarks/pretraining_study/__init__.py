"""What pretraining is worth: POMP, RPP and its parts, pretrained and then tested on other data sets."""
