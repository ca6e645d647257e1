"""Trials as jobs of a SLURM cluster: check the request, submit, follow, cancel; and the job's side.

SLURM's own memory is not relied on: without its database `sacct` fails, and a job is forgotten
minutes after its end. What counts are the files beside a trial and what `squeue` shows now.
"""
