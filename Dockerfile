# A static binary and nothing else. glibc rather than musl: its allocator is the faster one under
# load, and since 2.34 a static glibc resolves names by itself.
ARG BUILDER=rust:1.95-slim-bookworm
FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# Naming the target keeps +crt-static away from build scripts and procedural macros.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --bin jailgate --target "$target" \
 && mkdir -p /image/etc/jailgate /image/etc/ssl/certs /image/var/lib/jailgate /image/usr/bin \
 && cp "target/$target/release/jailgate" /image/usr/bin/ \
 && strip /image/usr/bin/jailgate \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && chown -R 65532:65532 /image/var/lib/jailgate

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /var/lib/jailgate
EXPOSE 8080 4181
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/bin/jailgate", "healthcheck"]
ENTRYPOINT ["/usr/bin/jailgate"]
CMD ["run", "-c", "/etc/jailgate/jailgate.yaml"]
