"""A naive function's life: start, load the pickled pipeline, answer, end. Arguments: pipeline, text."""

import json
import sys

import joblib

pipeline = joblib.load(sys.argv[1])
probabilities = pipeline.predict_proba([sys.argv[2]])[0].tolist()
print(json.dumps(dict(zip(pipeline.classes_.tolist(), probabilities, strict=True))))
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
