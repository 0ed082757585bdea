"""A function as people write it for AWS: its SDK and Powertools, joblib, scikit-learn."""

import json
import os
from typing import Any

import boto3
import joblib
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger(service="naive")
metrics = Metrics(namespace="naive", service="naive")
path = os.path.join(os.environ["TMPDIR"], "model.joblib")
boto3.client("s3").download_file(os.environ["NAIVE_BUCKET"], "model.joblib", path)
model = joblib.load(path)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    text = json.loads(event["body"])["text"]
    shares = model.predict_proba([text])[0].tolist()
    metrics.add_metric(name="predictions", unit=MetricUnit.Count, value=1)
    logger.info("predicted")
    answer = dict(zip(model.classes_.tolist(), shares, strict=True))
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(answer)}
