"""TorchServe's Predictions call, without generated stubs: two messages, described in code.

The message and service names and the field numbers are those of TorchServe's inference.proto.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "org.pytorch.serve.grpc.inference"
_FIELD = descriptor_pb2.FieldDescriptorProto


def predict(address: str, model: str, token: str, **inputs: bytes) -> bytes:
    """Call Predictions with named inputs; return the prediction."""
    request_class, response_class = _messages()
    request = request_class(model_name=model, input=inputs)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{_PACKAGE}.InferenceAPIsService/Predictions",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        metadata = (("protocol", "gRPC"), ("authorization", f"Bearer {token}"))
        return bytes(call(request, metadata=metadata, timeout=60).prediction)


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="predictions.proto", package=_PACKAGE, syntax="proto3")
    request = file.message_type.add(name="PredictionsRequest")
    _field(request, "model_name", 1, _FIELD.TYPE_STRING)
    _field(request, "model_version", 2, _FIELD.TYPE_STRING)
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    _field(entry, "key", 1, _FIELD.TYPE_STRING)
    _field(entry, "value", 2, _FIELD.TYPE_BYTES)
    inputs = _field(request, "input", 3, _FIELD.TYPE_MESSAGE)
    inputs.label = _FIELD.LABEL_REPEATED
    inputs.type_name = f".{_PACKAGE}.PredictionsRequest.InputEntry"
    response = file.message_type.add(name="PredictionResponse")
    _field(response, "prediction", 1, _FIELD.TYPE_BYTES)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("PredictionsRequest", "PredictionResponse")
    classes = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in names]
    return classes[0], classes[1]


def _field(message: Any, name: str, number: int, kind: Any) -> Any:
    return message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
