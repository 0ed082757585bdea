"""A function as people write it for Google Cloud: its storage SDK, joblib, scikit-learn."""

import os

import flask
import functions_framework
import joblib
from google.cloud import storage

path = os.path.join(os.environ["TMPDIR"], "model.joblib")
storage.Client().bucket(os.environ["NAIVE_BUCKET"]).blob("model.joblib").download_to_filename(path)
model = joblib.load(path)


@functions_framework.http
def http(request: flask.Request) -> dict[str, float]:
    text = request.get_json()["text"]
    shares = model.predict_proba([text])[0].tolist()
    return dict(zip(model.classes_.tolist(), shares, strict=True))
