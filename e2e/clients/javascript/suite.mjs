// The JavaScript client for Kubernetes on a swarm: each function below is a case, run in this order.
//
// Usage: node suite.mjs KUBECONFIG ARTIFACT, the digest of a component that was uploaded.

import assert from 'node:assert/strict';
import * as k8s from '@kubernetes/client-node';

const SPACE = 'javascript';
const LONGEST = 60_000;

const [kubeconfig, artifact] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const configMapsPath = `/api/v1/namespaces/${SPACE}/configmaps`;
const functionsOf = { group: 'hive.dev', version: 'v1', namespace: SPACE, plural: 'functions' };

const configMap = (name, data = {}, metadata = {}) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: SPACE, ...metadata },
    data,
});
const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);

/** The call is answered with this status and reason. */
async function refused(code, reason, call) {
    await assert.rejects(call, (error) => {
        assert.equal(error.code, code, error.message);
        const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.equal(body.kind, 'Status');
        assert.equal(body.reason, reason);
        return true;
    });
}

/** A promise that fails when it is not kept in time. */
function soon(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: not within ${LONGEST} ms`)), LONGEST);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Watches until `enough` says so of the events seen; the events. */
async function watched(path, query, enough) {
    const seen = [];
    let end;
    const ended = new Promise((resolve, reject) => {
        end = { resolve, reject };
    });
    const abort = await new k8s.Watch(config).watch(
        path,
        query,
        (type, object) => {
            seen.push({ type, object });
            if (enough(seen)) {
                end.resolve(seen);
            }
        },
        (error) => end.reject(error ?? new Error(`the watch ended after ${seen.length} events`)),
    );
    try {
        return await soon(`events at ${path}`, ended);
    } finally {
        abort.abort();
    }
}

async function namespaces() {
    const made = await core.createNamespace({ body: { metadata: { name: SPACE } } });
    assert.equal(made.status.phase, 'Active');
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    const { items } = await core.listNamespace();
    assert.ok(items.some((item) => item.metadata.name === SPACE));
    await refused(409, 'AlreadyExists', () =>
        core.createNamespace({ body: { metadata: { name: SPACE } } }),
    );
}

async function configMaps() {
    const made = await core.createNamespacedConfigMap({
        namespace: SPACE,
        body: configMap('plain', { a: '1' }),
    });
    const read = await core.readNamespacedConfigMap({ name: 'plain', namespace: SPACE });
    assert.deepEqual(read, made);
    const changed = { ...read, data: { ...read.data, b: '2' } };
    const replaced = await core.replaceNamespacedConfigMap({
        name: 'plain',
        namespace: SPACE,
        body: changed,
    });
    assert.deepEqual(replaced.data, { a: '1', b: '2' });
    await refused(409, 'Conflict', () =>
        core.replaceNamespacedConfigMap({ name: 'plain', namespace: SPACE, body: made }),
    );
    await refused(404, 'NotFound', () =>
        core.readNamespacedConfigMap({ name: 'nothing', namespace: SPACE }),
    );
    await refused(422, 'Invalid', () =>
        core.createNamespacedConfigMap({ namespace: SPACE, body: configMap('Not a name') }),
    );
}

async function patches() {
    const patch = (body, strategy) =>
        core.patchNamespacedConfigMap({ name: 'plain', namespace: SPACE, body }, as(strategy));
    const merged = await patch({ data: { a: null, c: '3' } }, k8s.PatchStrategy.MergePatch);
    assert.deepEqual(merged.data, { b: '2', c: '3' });
    const strategic = await patch({ data: { c: '4' } }, k8s.PatchStrategy.StrategicMergePatch);
    assert.deepEqual(strategic.data, { b: '2', c: '4' });
    const json = await patch(
        [{ op: 'remove', path: '/data/b' }],
        k8s.PatchStrategy.JsonPatch,
    );
    assert.deepEqual(json.data, { c: '4' });
}

async function serverSideApply() {
    const apply = (fieldManager, data, options = {}) =>
        core.patchNamespacedConfigMap(
            {
                name: 'applied',
                namespace: SPACE,
                body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' }, data },
                fieldManager,
                ...options,
            },
            as(k8s.PatchStrategy.ServerSideApply),
        );
    const tried = await apply('chief', { open: '9' }, { dryRun: 'All' });
    assert.deepEqual(tried.data, { open: '9' });
    await refused(404, 'NotFound', () =>
        core.readNamespacedConfigMap({ name: 'applied', namespace: SPACE }),
    );
    const made = await apply('chief', { open: '9', close: '18' });
    assert.deepEqual(await apply('chief', { open: '9', close: '18' }), made);
    await assert.rejects(apply('clerk', { open: '8' }), (error) => {
        assert.equal(error.code, 409);
        const { details } = JSON.parse(error.body);
        assert.deepEqual(
            details.causes.map(({ reason, field }) => [reason, field]),
            [['FieldManagerConflict', '.data.open']],
        );
        assert.match(details.causes[0].message, /"chief"/);
        return true;
    });
    const forced = await apply('clerk', { open: '8' }, { force: true });
    assert.deepEqual(forced.data, { open: '8', close: '18' });
    const owners = forced.metadata.managedFields.map(({ manager, operation }) => [manager, operation]);
    assert.deepEqual(owners, [
        ['chief', 'Apply'],
        ['clerk', 'Apply'],
    ]);
    // What its only owner leaves out goes.
    assert.deepEqual((await apply('chief', {})).data, { open: '8' });

    const declared = configMap('applied', { open: '7' });
    const declare = (force) =>
        objects.patch(
            declared,
            undefined,
            undefined,
            'dynamic',
            force,
            k8s.PatchStrategy.ServerSideApply,
        );
    await refused(409, 'Conflict', () => declare(undefined));
    assert.deepEqual((await declare(true)).data, { open: '7' });
}

async function lists() {
    for (let number = 0; number < 5; number += 1) {
        const body = configMap(`page-${number}`, {}, { labels: { book: 'yes' } });
        await core.createNamespacedConfigMap({ namespace: SPACE, body });
    }
    const names = [];
    let token;
    do {
        const page = await core.listNamespacedConfigMap({
            namespace: SPACE,
            labelSelector: 'book=yes',
            limit: 2,
            _continue: token,
        });
        assert.ok(page.items.length <= 2);
        names.push(...page.items.map((item) => item.metadata.name));
        token = page.metadata._continue;
    } while (token);
    assert.deepEqual(names, ['page-0', 'page-1', 'page-2', 'page-3', 'page-4']);
    await core.deleteCollectionNamespacedConfigMap({ namespace: SPACE, labelSelector: 'book=yes' });
    const { items } = await core.listNamespacedConfigMap({ namespace: SPACE, labelSelector: 'book' });
    assert.deepEqual(items, []);
}

async function secretsAndAccounts() {
    const body = { metadata: { name: 'login' }, stringData: { user: 'ann' } };
    const secret = await core.createNamespacedSecret({ namespace: SPACE, body });
    assert.deepEqual(secret.data, { user: 'YW5u' });
    await core.createNamespacedServiceAccount({
        namespace: SPACE,
        body: { metadata: { name: 'robot' } },
    });
    const request = await core.createNamespacedServiceAccountToken({
        name: 'robot',
        namespace: SPACE,
        body: { spec: { audiences: [], expirationSeconds: 600 } },
    });
    const own = new k8s.KubeConfig();
    own.loadFromClusterAndUser(config.getCurrentCluster(), {
        name: 'robot',
        token: request.status.token,
    });
    const robot = own.makeApiClient(k8s.CoreV1Api);
    await refused(403, 'Forbidden', () => robot.listNamespacedSecret({ namespace: SPACE }));
}

async function watches() {
    const { metadata } = await core.listNamespacedConfigMap({ namespace: SPACE });
    const namespace = SPACE;
    await core.createNamespacedConfigMap({ namespace, body: configMap('watched', { n: '0' }) });
    await core.patchNamespacedConfigMap(
        { name: 'watched', namespace, body: { data: { n: '1' } } },
        as(k8s.PatchStrategy.MergePatch),
    );
    await core.deleteNamespacedConfigMap({ name: 'watched', namespace });
    const query = { fieldSelector: 'metadata.name=watched', resourceVersion: metadata.resourceVersion };
    const first = await watched(configMapsPath, query, (seen) => seen.length === 1);
    assert.equal(first[0].type, 'ADDED');
    // Resumed where it was left.
    query.resourceVersion = first[0].object.metadata.resourceVersion;
    const rest = await watched(configMapsPath, query, (seen) => seen.length === 2);
    assert.deepEqual(
        rest.map(({ type, object }) => [type, object.data.n]),
        [
            ['MODIFIED', '1'],
            ['DELETED', '1'],
        ],
    );
    // What is no revision is refused, not ignored.
    const wrong = watched(configMapsPath, { resourceVersion: 'never' }, () => true);
    await assert.rejects(wrong);
}

async function informers() {
    const informer = k8s.makeInformer(config, configMapsPath, () =>
        core.listNamespacedConfigMap({ namespace: SPACE }),
    );
    const kept = { add: [], update: [], delete: [] };
    const waiting = new Set();
    for (const verb of Object.keys(kept)) {
        informer.on(verb, (object) => {
            kept[verb].push(object.metadata.name);
            waiting.forEach((look) => look());
        });
    }
    // Stopping it is told as one too.
    const errors = [];
    informer.on('error', (error) => errors.push(error));
    const until = (what, holds) =>
        soon(
            what,
            new Promise((resolve) => {
                const look = () => {
                    if (holds()) {
                        waiting.delete(look);
                        resolve();
                    }
                };
                waiting.add(look);
                look();
            }),
        );
    await informer.start();
    try {
        await until('what was there', () => kept.add.includes('plain'));
        await core.createNamespacedConfigMap({ namespace: SPACE, body: configMap('late') });
        await until('an addition', () => kept.add.includes('late'));
        await core.patchNamespacedConfigMap(
            { name: 'late', namespace: SPACE, body: { data: { n: '1' } } },
            as(k8s.PatchStrategy.MergePatch),
        );
        await until('an update', () => kept.update.includes('late'));
        assert.deepEqual(informer.get('late', SPACE).data, { n: '1' });
        await core.deleteNamespacedConfigMap({ name: 'late', namespace: SPACE });
        await until('a deletion', () => kept.delete.includes('late'));
        assert.equal(informer.get('late', SPACE), undefined);
        assert.equal(informer.list(SPACE).length, kept.add.length - 1);
        assert.deepEqual(errors, []);
    } finally {
        await informer.stop();
    }
}

async function functions() {
    const body = {
        apiVersion: 'hive.dev/v1',
        kind: 'Function',
        metadata: { name: 'greeter', namespace: SPACE },
        spec: { replicas: 1, artifact: { sha256: artifact } },
    };
    await custom.createNamespacedCustomObject({ ...functionsOf, body });
    const path = `/apis/hive.dev/v1/namespaces/${SPACE}/functions`;
    await watched(path, { fieldSelector: 'metadata.name=greeter' }, (seen) =>
        seen.some(({ object }) => object.status?.readyReplicas === 1),
    );
    const patched = await custom.patchNamespacedCustomObject(
        { ...functionsOf, name: 'greeter', body: { spec: { replicas: 2 } } },
        as(k8s.PatchStrategy.MergePatch),
    );
    assert.equal(patched.spec.replicas, 2);
    assert.equal(patched.metadata.generation, 2);
    const scale = await custom.getNamespacedCustomObjectScale({ ...functionsOf, name: 'greeter' });
    assert.equal(scale.spec.replicas, 2);
    const listed = await custom.listNamespacedCustomObject(functionsOf);
    assert.deepEqual(
        listed.items.map((item) => item.metadata.name),
        ['greeter'],
    );
    await refused(404, 'NotFound', () =>
        custom.getNamespacedCustomObject({ ...functionsOf, name: 'nothing' }),
    );
    await custom.deleteNamespacedCustomObject({ ...functionsOf, name: 'greeter' });
}

async function anyObjects() {
    // Finds the resource of a kind through discovery.
    const made = await objects.create(configMap('any', { a: '1' }));
    assert.ok(made.metadata.uid);
    const patched = await objects.patch(
        { ...configMap('any', { a: '2' }) },
        undefined,
        undefined,
        undefined,
        undefined,
        k8s.PatchStrategy.MergePatch,
    );
    assert.deepEqual(patched.data, { a: '2' });
    const read = await objects.read(configMap('any'));
    assert.deepEqual(read.data, { a: '2' });
    const listed = await objects.list('v1', 'ConfigMap', SPACE);
    assert.ok(listed.items.some((item) => item.metadata.name === 'any'));
    const status = await objects.delete(configMap('any'));
    assert.equal(status.status, 'Success');
    const nodes = await objects.list('hive.dev/v1', 'Node');
    assert.ok(nodes.items.length > 0);
}

async function theEnd() {
    await core.deleteNamespace({ name: SPACE });
    const { items, metadata } = await core.listNamespace();
    if (items.some((item) => item.metadata.name === SPACE)) {
        const query = {
            fieldSelector: `metadata.name=${SPACE}`,
            resourceVersion: metadata.resourceVersion,
        };
        await watched('/api/v1/namespaces', query, (seen) => seen.at(-1).type === 'DELETED');
    }
    await refused(404, 'NotFound', () => core.readNamespace({ name: SPACE }));
}

const cases = [
    namespaces,
    configMaps,
    patches,
    serverSideApply,
    lists,
    secretsAndAccounts,
    watches,
    informers,
    functions,
    anyObjects,
    theEnd,
];
const failed = [];
for (const each of cases) {
    try {
        await soon(each.name, each());
        console.log(`  ok      ${each.name}`);
    } catch (error) {
        console.error(error);
        console.log(`  FAILED  ${each.name}`);
        failed.push(each.name);
    }
}
if (failed.length > 0) {
    console.error(`${failed.length} of ${cases.length} cases failed: ${failed.join(', ')}`);
}
process.exit(failed.length > 0 ? 1 : 0);
