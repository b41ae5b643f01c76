"""Teach a cheap scorer the scores of an expensive one."""
