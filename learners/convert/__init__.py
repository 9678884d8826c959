"""`python -m learners.convert`: the checkpoints of LITE's and ORBIT's authors become ours."""
