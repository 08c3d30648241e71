# lathe serve in a container of Debian 12. Built from a checkout:
#   docker build -t lathe .
#   docker run --rm --init --stop-timeout 60 -p 127.0.0.1:8080:8080 -v lathe-cache:/var/cache/lathe \
#     -v /srv/models:/models:ro -v /srv/lathe-keys:/keys:ro -e LATHE_API_KEY_FILE=/keys lathe serve -m /models/MODEL
# It listens on all of its own addresses, so it wants keys, or LATHE_ALLOW_UNAUTHENTICATED=1 where only friends reach it.
# The user of number 10001 must be able to read the models and the keys. Docker kills what has not ended 10 seconds after
# SIGTERM, and answers under way have 30 (LATHE_DRAIN); hence the time to stop. Models named ORG/NAME lie in
# /var/lib/lathe: keep it as well (-v lathe-models:/var/lib/lathe), and fill it with "lathe pull ORG/NAME".

FROM debian:12-slim AS build
WORKDIR /src
COPY tools/install_packages.sh tools/
RUN tools/install_packages.sh build
COPY . .
# As `make build`, for the place where the program will lie.
RUN cmake --preset release -DLATHE_BUILD_TESTS=OFF -DLATHE_BUILD_EXAMPLES=OFF -DCMAKE_INSTALL_PREFIX=/usr \
    && cmake --build build --target lathe_cli liblathe -j "$(nproc)" \
    && DESTDIR=/out cmake --install build --strip

FROM debian:12-slim
# The libraries that the program loads, certificates for downloads of models, curl for the health check.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       libc6 libcurl4 libedit2 libgcc-s1 libpcre2-8-0 libssl3 libstdc++6 libzstd1 ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --user-group --uid 10001 --home-dir /var/lib/lathe --create-home lathe \
    && install -d -o lathe -g lathe /var/cache/lathe
COPY --from=build /out/usr/bin/lathe /usr/bin/lathe
COPY --from=build /out/usr/share/lathe /usr/share/lathe
COPY --from=build /out/usr/share/doc/lathe/LICENSE /out/usr/share/doc/lathe/NOTICE /usr/share/doc/lathe/
ENV LATHE_HOST=0.0.0.0 XDG_CACHE_HOME=/var/cache HF_HOME=/var/lib/lathe/huggingface
USER lathe
WORKDIR /var/lib/lathe
VOLUME /var/cache/lathe /var/lib/lathe
EXPOSE 8080
# As long as for the systemd unit: the first start of a large model packs its weights. /health answers 503 from SIGTERM on.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m --retries=3 \
  CMD curl -fsS -o /dev/null "http://127.0.0.1:${LATHE_PORT:-8080}/health"
ENTRYPOINT ["lathe"]
CMD ["serve"]
