# The server as an image: one static binary, and nothing beside it. Programs that activities run are yours: make an image of your own
# from one that has them, with `COPY --from=selvedge /usr/bin/selvedge /usr/bin/selvedge`. docs/packages.md says more.
#
#   docker build -t selvedge .
#   docker run --rm -v selvedge:/var/lib/selvedge selvedge keys create --role owner
#   docker run --init -d -p 127.0.0.1:7420:7420 -v selvedge:/var/lib/selvedge selvedge

ARG RUST=rust:1.95-bookworm
FROM ${RUST} AS build
WORKDIR /src
COPY . .
RUN tools/package/image-root /out

FROM scratch
COPY --from=build /out/root/ /
COPY --from=build --chown=7420:7420 /out/data/ /var/lib/selvedge/
USER 7420:7420
WORKDIR /etc/selvedge
VOLUME /var/lib/selvedge
EXPOSE 7420
HEALTHCHECK --interval=10s --timeout=10s --start-period=15m CMD ["/usr/bin/selvedge", "health"]
ENTRYPOINT ["/usr/bin/selvedge"]
CMD ["serve"]
