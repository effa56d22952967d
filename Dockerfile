# One image for every role: `start` with ROLES, or any other command of `tidemark` (`docker compose run --rm query doctor`).
FROM node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund

FROM node:24-bookworm-slim
ENV NODE_ENV=production HOST=0.0.0.0 TIDEMARK_DATA=/data
WORKDIR /app
COPY --from=packages /app/node_modules ./node_modules
COPY . .
RUN install -d -o node -g node -m 700 /data
USER node
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node", "-e", "fetch('http://127.0.0.1:8080/readyz').then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "cli/main.ts"]
CMD ["start"]
