// The development server: serves dist and speaks the dashboard's contract in front of any Kubernetes API server.
//
//   node dev/server.mjs --kubeconfig FILE [--listen 127.0.0.1:0]
//
// 1. Sessions live in memory: a one-time link signs in with the kubeconfig's certificate, POST /session with a token.
// 2. /kube/* and /registry/* go to the API server as the session's user, WebSocket upgrades too.
// 3. /stream multiplexes watches: one upstream request for each watch, one WebSocket to the browser.
// It listens on loopback only, and is no part of what is shipped.
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { readKubeconfig } from './kubeconfig.mjs';
import { Sessions } from './sessions.mjs';
import { proxyRequest, proxyUpgrade } from './proxy.mjs';
import { serveStream } from './stream.mjs';

const { values: flags } = parseArgs({
  options: {
    kubeconfig: { type: 'string' },
    listen: { type: 'string', default: '127.0.0.1:0' },
    dist: { type: 'string', default: fileURLToPath(new URL('../dist', import.meta.url)) },
  },
});
if (!flags.kubeconfig) {
  console.error('usage: node dev/server.mjs --kubeconfig FILE [--listen 127.0.0.1:PORT]');
  process.exit(2);
}

const upstream = readKubeconfig(flags.kubeconfig);
const sessions = new Sessions(upstream);

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

function policy(nonce) {
  return [
    "default-src 'self'",
    `style-src 'self' 'nonce-${nonce}'`,
    "img-src 'self' data:",
    "connect-src 'self'",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ');
}

function serveFile(url, response) {
  const wanted = path.join(flags.dist, path.normalize(url.pathname));
  const isFile = wanted.startsWith(flags.dist) && fs.existsSync(wanted) && fs.statSync(wanted).isFile();
  const file = isFile ? wanted : path.join(flags.dist, 'index.html');
  const extension = path.extname(file);
  let body = fs.readFileSync(file);
  const headers = { 'Content-Type': TYPES[extension] ?? 'application/octet-stream', 'X-Content-Type-Options': 'nosniff' };
  if (extension === '.html') {
    const nonce = crypto.randomBytes(16).toString('base64');
    body = body.toString().replaceAll('__CSP_NONCE__', nonce);
    headers['Content-Security-Policy'] = policy(nonce);
    headers['Cache-Control'] = 'no-store';
  } else {
    headers['Cache-Control'] = url.pathname.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache';
  }
  response.writeHead(200, headers);
  response.end(body);
}

async function route(request, response) {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname === '/login') return sessions.login(url, response);
  if (url.pathname === '/session') return sessions.serve(request, response);
  if (/^\/(kube|registry)\//.test(url.pathname)) {
    const session = sessions.of(request);
    if (!session) return sessions.refuse(response);
    if (request.method !== 'GET' && request.method !== 'HEAD' && request.headers['x-windlass-request'] !== '1') {
      return sessions.refuse(response, 403, 'the header X-Windlass-Request is missing');
    }
    return proxyRequest(upstream, session, request, response);
  }
  if (request.method !== 'GET') return sessions.refuse(response, 405, 'method not allowed');
  return serveFile(url, response);
}

const server = http.createServer((request, response) => {
  Promise.resolve(route(request, response)).catch((error) => sessions.refuse(response, 502, error.message));
});
server.on('upgrade', (request, socket, head) => {
  const url = new URL(request.url, 'http://localhost');
  const session = sessions.of(request);
  if (url.pathname === '/stream') return serveStream(upstream, session, request, socket, head);
  if (url.pathname.startsWith('/kube/') && session) return proxyUpgrade(upstream, session, request, socket, head);
  return socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n');
});
const [host, port] = flags.listen.split(':');
if (host !== '127.0.0.1') throw new Error('the development server listens on loopback only');
server.listen(Number(port), host, () => {
  const base = `http://127.0.0.1:${server.address().port}`;
  console.log(`dashboard ${base}`);
  console.log(`login ${base}/login?code=${sessions.oneTimeCode()}`);
});
// `link` on stdin asks for one more login link.
createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'link') console.log(`login http://127.0.0.1:${server.address().port}/login?code=${sessions.oneTimeCode()}`);
});
