"""The sections of a trial's configuration, one file each."""
