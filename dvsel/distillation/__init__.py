"""What a cheap scorer learns from the scores of an expensive one."""
