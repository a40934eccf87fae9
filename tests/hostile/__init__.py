"""Bad input by the thousand: job files, settings, names, run folders and command lines, made from a seed."""
