"""A function app as people write it for Azure: its storage SDK, joblib, scikit-learn."""

import io
import json
import os

import azure.functions as func
import joblib
from azure.storage.blob import BlobServiceClient

account = BlobServiceClient(
    os.environ["AZURE_STORAGE_ENDPOINT"], credential=os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
)
blob = account.get_blob_client(os.environ["NAIVE_BUCKET"], "model.joblib")
model = joblib.load(io.BytesIO(blob.download_blob().readall()))
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="{*path}")
def http(req: func.HttpRequest) -> func.HttpResponse:
    text = req.get_json()["text"]
    shares = model.predict_proba([text])[0].tolist()
    answer = dict(zip(model.classes_.tolist(), shares, strict=True))
    return func.HttpResponse(json.dumps(answer), mimetype="application/json")
