"""What a team would write without TorchServe: FastAPI and an ONNX Runtime session. Run by uvicorn, two processes."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from tokenizers import Tokenizer

folder = Path(os.environ["MODEL_DIR"])
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(512)
labels = list(json.loads((folder / "index_to_name.json").read_text()).values())
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(str(folder / "model.onnx"), options)
app = FastAPI()


@app.post("/predictions/fastapi")  # type: ignore[untyped-decorator]
async def predict(request: Request) -> JSONResponse:
    encoding = tokenizer.encode((await request.body()).decode())
    rows = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
    logits = session.run(None, {name: np.array([row]) for name, row in rows.items()})[0][0]
    scores = np.exp(logits - logits.max())
    best_first = sorted(zip(labels, (scores / scores.sum()).tolist(), strict=True), key=lambda pair: -pair[1])
    return JSONResponse(dict(best_first))
