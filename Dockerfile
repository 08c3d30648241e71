# lathe serve in a container of Debian 12. Built from a checkout:
#   docker build -t lathe .
#   docker run --rm -p 127.0.0.1:8080:8080 -v lathe-cache:/var/cache/lathe -v /srv/models:/models:ro \
#     -e LATHE_API_KEY_FILE=/keys -v ./keys:/keys:ro lathe serve -m /models/MODEL
# It listens on all of its own addresses, so it wants keys, or LATHE_ALLOW_UNAUTHENTICATED=1 where only friends reach it.

FROM debian:12-slim AS build
WORKDIR /src
COPY tools/install_packages.sh tools/
RUN tools/install_packages.sh build
COPY . .
RUN cmake --preset release -DLATHE_BUILD_TESTS=OFF -DLATHE_BUILD_EXAMPLES=OFF -DCMAKE_INSTALL_PREFIX=/usr \
    && cmake --build build --target lathe_cli liblathe -j "$(nproc)" \
    && DESTDIR=/out cmake --install build --strip

FROM debian:12-slim
# The libraries that the program loads, certificates for downloads of models, curl for the health check.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       libc6 libcurl4 libedit2 libgcc-s1 libpcre2-8-0 libssl3 libstdc++6 libzstd1 ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/lathe --create-home lathe \
    && install -d -o lathe -g lathe /var/cache/lathe
COPY --from=build /out/usr/bin/lathe /usr/bin/lathe
COPY --from=build /out/usr/share/lathe /usr/share/lathe
COPY --from=build /out/usr/share/doc/lathe/LICENSE /out/usr/share/doc/lathe/NOTICE /usr/share/doc/lathe/
ENV LATHE_HOST=0.0.0.0 XDG_CACHE_HOME=/var/cache HF_HOME=/var/lib/lathe/huggingface
USER lathe
WORKDIR /var/lib/lathe
VOLUME /var/cache/lathe
EXPOSE 8080
# A large model takes its time to load; /health answers 503 from SIGTERM on.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
  CMD curl -fsS -o /dev/null "http://127.0.0.1:${LATHE_PORT:-8080}/health"
ENTRYPOINT ["lathe"]
CMD ["serve"]
