// Sessions of the development server: one-time login links, sign-in by token; all in memory.
import crypto from 'node:crypto';
import { ask } from './proxy.mjs';

const COOKIE = 'windlass-session';
const LIFE = 12 * 3600_000;

export class Sessions {
  #codes = new Set();
  #sessions = new Map();

  constructor(upstream) {
    this.upstream = upstream;
  }

  oneTimeCode() {
    const code = crypto.randomBytes(24).toString('base64url');
    this.#codes.add(code);
    return code;
  }

  /** The session that a request's cookie names, if it lasts still. */
  of(request) {
    const pair = (request.headers.cookie ?? '').split('; ').find((part) => part.startsWith(`${COOKIE}=`));
    const session = pair && this.#sessions.get(pair.slice(COOKIE.length + 1));
    return session && session.expires > Date.now() ? session : undefined;
  }

  refuse(response, code = 401, message = 'Unauthorized') {
    if (response.headersSent) return response.destroy();
    response.writeHead(code, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, reason: code === 401 ? 'Unauthorized' : 'Forbidden', code }));
  }

  #open(credentials) {
    const id = crypto.randomBytes(32).toString('base64url');
    this.#sessions.set(id, { ...credentials, id, expires: Date.now() + LIFE });
    return `${COOKIE}=${id}; HttpOnly; SameSite=Strict; Path=/`;
  }

  login(url, response) {
    const good = this.#codes.delete(url.searchParams.get('code') ?? '');
    const headers = good ? { Location: '/', 'Set-Cookie': this.#open(this.upstream.admin) } : { Location: '/signin?error=link' };
    response.writeHead(302, { ...headers, 'Referrer-Policy': 'no-referrer' });
    response.end();
  }

  async #user(credentials) {
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
    const answer = await ask(this.upstream, credentials, 'POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', review);
    return answer.code < 300 ? answer.body.status.userInfo : undefined;
  }

  async #signIn(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { token } = JSON.parse(Buffer.concat(chunks).toString());
    const user = token && (await this.#user({ token }));
    if (!user || user.username === 'system:anonymous') return this.refuse(response, 401, 'the API server does not accept this token');
    response.writeHead(204, { 'Set-Cookie': this.#open({ token }) });
    return response.end();
  }

  async serve(request, response) {
    if (request.method === 'POST') return this.#signIn(request, response);
    const session = this.of(request);
    if (!session) return this.refuse(response);
    if (request.method === 'DELETE') {
      this.#sessions.delete(session.id);
      response.writeHead(204, { 'Set-Cookie': `${COOKIE}=; Max-Age=0; Path=/` });
      return response.end();
    }
    const user = await this.#user(session);
    if (!user) return this.refuse(response);
    const version = await ask(this.upstream, session, 'GET', '/version');
    response.writeHead(200, { 'Content-Type': 'application/json' });
    return response.end(JSON.stringify({ user: { username: user.username, groups: user.groups ?? [] }, expires: new Date(session.expires).toISOString(), version: version.body.gitVersion }));
  }
}
