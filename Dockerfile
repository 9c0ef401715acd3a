# The page and the service of scripts/demo.py for one model. It needs a network to be built, and none to run.
#
#   docker build --build-arg MODEL=outputs/medical/best --tag medical-demo .
#   docker run --publish 7860:7860 medical-demo
FROM python:3.11-slim
WORKDIR /app

# torch as on PyPI brings the libraries of CUDA; for a small image pass the index of its CPU builds.
ARG TORCH_INDEX_URL=
COPY requirements.txt .
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url $TORCH_INDEX_URL} "$(grep '^torch==' requirements.txt)"

# The versions of requirements.txt, and the package itself with its demo extra instead of an editable one.
COPY pyproject.toml README.md LICENSE ./
COPY glinerko glinerko
RUN sed -i 's/^-e \.$/.[demo]/' requirements.txt && pip install --no-cache-dir -r requirements.txt

RUN useradd --create-home --uid 1000 demo
USER demo
COPY --chown=demo:demo scripts/demo.py scripts/demo.py
# A directory of the build context. Its weights may be readable by their owner only.
ARG MODEL=outputs/demo/best
COPY --chown=demo:demo ${MODEL} model

ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=5)"]
# More options of scripts/demo.py can be added to `docker run`.
ENTRYPOINT ["python", "scripts/demo.py", "--model", "model", "--host", "0.0.0.0"]
