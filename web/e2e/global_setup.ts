// Against a dashboard that runs already (WINDLASS_DASHBOARD_LOGIN): its link works once, so the first thing that is done
// with it is to make a token, which every test signs in with.
export default async function setup(): Promise<void> {
  const login = process.env['WINDLASS_DASHBOARD_LOGIN'];
  if (!login) return;
  const { origin } = new URL(login);
  const opened = await fetch(login, { redirect: 'manual' });
  const cookie = opened.headers.get('set-cookie')?.split(';')[0];
  if (!cookie) throw new Error('the login link was used before');
  const write = async (path: string, body: unknown) => {
    const headers = { cookie, 'X-Windlass-Request': '1', 'Content-Type': 'application/json' };
    const answer = await fetch(`${origin}/kube${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!answer.ok && answer.status !== 409) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  const account = { name: 'dashboard-e2e', namespace: 'default' };
  const accounts = '/api/v1/namespaces/default/serviceaccounts';
  await write(accounts, { metadata: { name: account.name } });
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' };
  const subjects = [{ kind: 'ServiceAccount', ...account }];
  await write('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', { metadata: { name: account.name }, roleRef, subjects });
  const issued = (await write(`${accounts}/${account.name}/token`, { spec: { expirationSeconds: 3600 } })) as { status: { token: string } };
  process.env['WINDLASS_DASHBOARD_URL'] = origin;
  process.env['WINDLASS_DASHBOARD_TOKEN'] = issued.status.token;
}
