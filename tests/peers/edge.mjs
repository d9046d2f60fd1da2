// Holds the Kubernetes examples against the schemas of the Gateway API and of Argo Rollouts.
// Usage: node edge.mjs NODE_MODULES < JSON array of objects
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const modules = process.argv[2];
const argo = 'argo-rollouts/_schemas/ComGithubArgoprojArgoRolloutsPkgApisRolloutsV1alpha1';
const schemas = {
  HTTPRoute: 'gateway-api/_schemas/IoK8sSigsGatewayApiApisV1HTTPRoute.js',
  Rollout: `${argo}Rollout.js`,
  AnalysisTemplate: `${argo}AnalysisTemplate.js`,
};
const load = (kind) => import(pathToFileURL(`${modules}/@kubernetes-models/${schemas[kind]}`));
for (const object of JSON.parse(readFileSync(0))) {
  const { validate } = await load(object.kind);
  if (!validate(object)) {
    console.error(object.kind, validate.errors);
    process.exit(1);
  }
  // A schema that takes anything shows nothing.
  const broken = structuredClone(object);
  broken.apiVersion = 'v0';
  if (object.kind === 'HTTPRoute') broken.spec.rules[0].backendRefs[1].weight = 'five';
  if (validate(broken)) {
    console.error(object.kind, 'is taken with a mistake in it');
    process.exit(1);
  }
  console.log(`${object.kind}: good`);
}
