# The scripts and their packages. How to build and run it: docs/docker.md
FROM python:3.12-slim

# https://download.pytorch.org/whl/cpu: without CUDA's libraries, much smaller
ARG TORCH_INDEX=https://pypi.org/simple
ENV PYTHONUNBUFFERED=1

WORKDIR /app
COPY requirements.txt .
# Torch and torchvision together and first, so that they fit each other
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision \
 && pip install --no-cache-dir -r requirements.txt
COPY . .

# No shell in between: SIGTERM of `docker stop` reaches the script, which saves its state
CMD ["python", "train_yolact.py", "--help"]
