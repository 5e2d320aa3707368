// What the user may do: SelfSubjectAccessReview for a question, SelfSubjectRulesReview for a namespace's whole list.
// Answers are kept for a minute, since roles change seldom and every button asks.
import { useEffect, useMemo, useState } from 'react';
import { write } from './client';

export interface Question {
  verb: string;
  group: string;
  resource: string;
  subresource?: string;
  namespace?: string;
  name?: string;
}

export interface Answer {
  allowed: boolean;
  /** Why not, for a tooltip; empty while the answer is not there yet. */
  reason: string;
  known: boolean;
}

export interface Rule {
  verbs: string[];
  apiGroups?: string[];
  resources?: string[];
  resourceNames?: string[];
  nonResourceURLs?: string[];
}

const FRESH = 60_000;
const answers = new Map<string, { at: number; answer: Promise<Answer> }>();
const UNKNOWN: Answer = { allowed: false, reason: '', known: false };

export function describe(question: Question): string {
  const what = question.subresource ? `${question.resource}/${question.subresource}` : question.resource;
  const where = question.namespace ? ` in namespace ${question.namespace}` : '';
  return `${question.verb} ${what}${where}`;
}

async function review(question: Question): Promise<Answer> {
  const spec = { resourceAttributes: { ...question } };
  const body = { apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectAccessReview', spec };
  const { object } = await write('POST', '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', body);
  const status = object.status as { allowed: boolean; reason?: string };
  const reason = status.allowed ? '' : `You may not ${describe(question)}.`;
  return { allowed: status.allowed, reason, known: true };
}

export function ask(question: Question): Promise<Answer> {
  const key = JSON.stringify(question);
  const known = answers.get(key);
  if (known && Date.now() - known.at < FRESH) return known.answer;
  const answer = review(question);
  answers.set(key, { at: Date.now(), answer });
  answer.catch(() => answers.delete(key));
  return answer;
}

/** Whether the user may do something; not allowed, without a reason, until the server has said. */
export function useAccess(question: Question | undefined): Answer {
  const key = question && JSON.stringify(question);
  const [state, setState] = useState<{ key?: string; answer: Answer }>({ answer: UNKNOWN });
  useEffect(() => {
    if (!key) return undefined;
    let current = true;
    const settle = (answer: Answer) => current && setState({ key, answer });
    ask(JSON.parse(key) as Question).then(settle, (error: Error) => settle({ allowed: false, reason: error.message, known: true }));
    return () => {
      current = false;
    };
  }, [key]);
  return state.key === key ? state.answer : UNKNOWN;
}

export async function rulesIn(namespace: string): Promise<{ rules: Rule[]; incomplete: boolean }> {
  const body = { apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectRulesReview', spec: { namespace } };
  const { object } = await write('POST', '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews', body);
  const status = object.status as { resourceRules?: Rule[]; incomplete?: boolean };
  return { rules: status.resourceRules ?? [], incomplete: !!status.incomplete };
}

const matches = (list: string[] | undefined, value: string) => !!list && (list.includes('*') || list.includes(value));

/** Whether rules allow a verb on a whole kind. */
export const allows = (rules: Rule[], verb: string, group: string, resource: string) =>
  rules.some((rule) => matches(rule.verbs, verb) && matches(rule.apiGroups, group) && matches(rule.resources, resource) && !rule.resourceNames?.length);

/** A test of what may be listed in a namespace; everything passes until the rules are there. */
export function useListable(namespace: string): (group: string, resource: string) => boolean {
  const [rules, setRules] = useState<{ namespace: string; rules: Rule[]; incomplete: boolean }>();
  useEffect(() => {
    let current = true;
    rulesIn(namespace || 'default').then((found) => current && setRules({ namespace, ...found }), () => undefined);
    return () => {
      current = false;
    };
  }, [namespace]);
  return useMemo((): ((group: string, resource: string) => boolean) => {
    if (!rules || rules.incomplete || rules.namespace !== namespace) return () => true;
    return (group, resource) => allows(rules.rules, 'list', group, resource);
  }, [rules, namespace]);
}
