"""Trials as jobs of a SLURM cluster: check the request, submit, follow, cancel; and the job's side.

SLURM forgets a job minutes after its end: what counts are the files beside a trial and the queue.
"""
