"""Checks, before anything runs, whether an experiment can run here: files, images, devices, disk, expected cost.

    findings    result of one check: fine, a note, or a problem with its solution
    inputs      checks of the user's files and images
    machine     checks of versions, device, driver, memory
    storage     checks of the run folder and the disk
    outlook     expected cost of each target: trainings, rows, hours, bytes
    examine     all checks together
"""

from varient.doctor.examine import Diagnosis, blocking, examine

__all__ = ["Diagnosis", "blocking", "examine"]
