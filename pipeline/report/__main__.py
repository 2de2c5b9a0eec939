"""Stage `report`: `python -m pipeline.report`."""

import pipeline.report
from pipeline import stage

stage.run(pipeline.report.main, pipeline.report.__doc__)
