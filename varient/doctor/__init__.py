"""Whether an experiment can run here, before anything does: files, images, devices, disk, and what it would take.

    findings    what was looked at: fine, worth a note, or a problem with what to do about it
    inputs      the user's files and images
    machine     versions, device, driver, memory
    storage     the run folder, and disk
    outlook     what each target would make: trainings, rows, hours, bytes
    examine     all of it
"""

from varient.doctor.examine import Diagnosis, blocking, examine

__all__ = ["Diagnosis", "blocking", "examine"]
