# Two images from one file:
#
#   docker build --target training -t sobofem:training .   learn from datasets; no FEniCSx, no MPI, no compiler
#   docker build --target full     -t sobofem:full .       generate and certify as well
#
# docker run --gpus all -v "$PWD:/data" sobofem:training train plate.h5 --out plate.safetensors
# docker run -v "$PWD:/data" -v sobofem-forms:/root/.cache/sobofem --entrypoint mpiexec sobofem:full \
#     -n 8 sobofem generate MODEL --out plate.h5
#
# The volume `sobofem-forms` keeps compiled forms for the next container. They are programs: a folder that other accounts
# may write to, as the one mounted at /data, would be refused.

# ---- training: PyTorch and the readers of datasets --------------------------------------------------------------
FROM python:3.12-slim AS training

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/sobofem
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY sobofem sobofem
COPY fem fem
COPY surrogate surrogate
COPY coupling coupling
COPY meshes meshes
RUN pip install --constraint requirements.lock ".[surrogate]"

WORKDIR /data
ENTRYPOINT ["sobofem"]
CMD ["--help"]

# ---- full: FEniCSx, MPI, and the C compiler that FEniCSx calls ---------------------------------------------------
FROM training AS full

RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/sobofem
RUN pip install --constraint requirements.lock ".[fem,surrogate]"

ENV OMP_NUM_THREADS=1
WORKDIR /data
