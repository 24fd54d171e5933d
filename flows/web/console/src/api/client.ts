// The console's API with the types of its OpenAPI document; every failure becomes a sentence.
import createClient from "openapi-fetch";
import { fetchEarly } from "./early";
import type { paths } from "./schema";

export const api = createClient<paths>({ baseUrl: location.origin, credentials: "same-origin", fetch: fetchEarly });

export type Answer<T> = { data: T } | { reason: string };

interface Fetched<T> {
  data?: T;
  error?: unknown;
}

/** What came of a call of `api`: its data, or why there is none. */
export async function answer<T>(call: Promise<Fetched<T>>): Promise<Answer<T>> {
  try {
    const { data, error } = await call;
    if (data !== undefined) return { data };
    return { reason: reasonOf(error) };
  } catch {
    return { reason: "The console does not answer. Is `actwright console` still running?" };
  }
}

function reasonOf(error: unknown): string {
  if (typeof error === "object" && error !== null && "reason" in error) return String(error.reason);
  return "The console gave an answer that this page cannot read. Fix: reload the page";
}

/** Sign in; why not, or "" when it worked. */
export async function signIn(given: { token?: string; name?: string }): Promise<string> {
  return posted("POST", given);
}

export async function signOut(): Promise<string> {
  return posted("DELETE");
}

async function posted(method: string, body?: unknown): Promise<string> {
  try {
    const response = await fetch("/api/session", { method, headers: { "content-type": "application/json" }, ...(body ? { body: JSON.stringify(body) } : {}) });
    return response.ok ? "" : reasonOf(await response.json());
  } catch {
    return "The console does not answer. Is `actwright console` still running?";
  }
}
