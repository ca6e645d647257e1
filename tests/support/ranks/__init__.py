"""What each process of a group does in the tests of training and measuring on several."""
