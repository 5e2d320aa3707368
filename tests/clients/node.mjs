// The JavaScript client of Kubernetes against the cluster that KUBECONFIG names.
//
// Creates, lists, watches with an informer, patches, applies and deletes. Prints "passed" at the end, or
// fails where an answer is not the one that upstream's API server gives.

import assert from 'node:assert/strict';

import * as k8s from '@kubernetes/client-node';

const namespace = 'default';
const PATIENCE_MILLISECONDS = 30_000;

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const inLanguage = (language) => k8s.setHeaderOptions('Content-Type', language);

function configMap(name, data, labels = {}) {
  return { metadata: { name, labels }, data };
}

function deployment(name) {
  const labels = { app: name };
  const container = { name: 'main', image: 'registry.example/app:1' };
  const template = { metadata: { labels }, spec: { containers: [container] } };
  const spec = { replicas: 0, selector: { matchLabels: labels }, template };
  return { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, namespace, labels }, spec };
}

async function createsAndLists() {
  for (const [name, tier] of [['one', 'front'], ['two', 'back']]) {
    const body = configMap(name, { colour: 'blue' }, { tier });
    const created = await core.createNamespacedConfigMap({ namespace, body });
    assert.ok(created.metadata.creationTimestamp instanceof Date);
  }
  const front = await core.listNamespacedConfigMap({ namespace, labelSelector: 'tier=front' });
  assert.deepEqual(front.items.map((item) => item.metadata.name), ['one']);
  const again = core.createNamespacedConfigMap({ namespace, body: configMap('one', {}) });
  await assert.rejects(again, (error) => {
    assert.equal(error.code, 409);
    assert.equal(JSON.parse(error.body).reason, 'AlreadyExists');
    return true;
  });
  await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'tier' });
}

// Resolves once the informer has told of everything that is done to a ConfigMap.
async function watchesWithAnInformer() {
  const list = () => core.listNamespacedConfigMap({ namespace });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
  const seen = [];
  const told = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`only saw ${seen}`)), PATIENCE_MILLISECONDS).unref();
    for (const verb of ['add', 'update', 'delete']) {
      informer.on(verb, (object) => {
        if (object.metadata.name !== 'seen') return;
        seen.push(`${verb} ${object.data.step}`);
        if (verb === 'delete') resolve();
      });
    }
    informer.on('error', reject);
  });
  await informer.start();
  await core.createNamespacedConfigMap({ namespace, body: configMap('seen', { step: '1' }) });
  const body = { data: { step: '2' } };
  await core.patchNamespacedConfigMap(
    { name: 'seen', namespace, body },
    inLanguage(k8s.PatchStrategy.MergePatch),
  );
  await core.deleteNamespacedConfigMap({ name: 'seen', namespace });
  await told;
  await informer.stop();
  assert.deepEqual(seen, ['add 1', 'update 2', 'delete 2']);
}

async function patchesInThreeLanguages() {
  const name = 'patched';
  await apps.createNamespacedDeployment({ namespace, body: deployment(name) });
  const env = [{ name: 'A', value: '1' }];
  const strategic = { spec: { template: { spec: { containers: [{ name: 'main', env }] } } } };
  const merge = { metadata: { labels: { tier: 'front' } } };
  const json = [
    { op: 'add', path: '/spec/paused', value: true },
    { op: 'remove', path: '/metadata/labels/tier' },
  ];
  let patched;
  for (const [body, language] of [
    [strategic, k8s.PatchStrategy.StrategicMergePatch],
    [merge, k8s.PatchStrategy.MergePatch],
    [json, k8s.PatchStrategy.JsonPatch],
  ]) {
    patched = await apps.patchNamespacedDeployment({ name, namespace, body }, inLanguage(language));
  }
  const [container] = patched.spec.template.spec.containers;
  assert.equal(container.image, 'registry.example/app:1');
  assert.equal(container.env[0].value, '1');
  assert.equal(patched.spec.paused, true);
  assert.deepEqual(patched.metadata.labels, { app: name });
  await apps.deleteNamespacedDeployment({ name, namespace, propagationPolicy: 'Foreground' });
}

async function appliesObjectsOfAnyKind() {
  const body = deployment('applied');
  const applied = await objects.patch(
    body, undefined, undefined, 'one', undefined, k8s.PatchStrategy.ServerSideApply,
  );
  const [manager] = applied.metadata.managedFields;
  assert.deepEqual([manager.manager, manager.operation], ['one', 'Apply']);
  body.spec.replicas = 1;
  const conflict = objects.patch(
    body, undefined, undefined, 'two', undefined, k8s.PatchStrategy.ServerSideApply,
  );
  await assert.rejects(conflict, (error) => {
    assert.equal(error.code, 409);
    return /Apply failed with 1 conflict/.test(error.body);
  });
  const read = await objects.read(body);
  assert.equal(read.spec.replicas, 0);
  await objects.delete(body);
}

await createsAndLists();
await watchesWithAnInformer();
await patchesInThreeLanguages();
await appliesObjectsOfAnyKind();
console.log('passed');
