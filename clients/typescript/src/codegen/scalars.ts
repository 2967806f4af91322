/** What the scalars of the API are in TypeScript, where they are given and where they come; others are `unknown`. */
export const SCALARS = {
  ID: 'string',
  DateTime: { input: 'Date | string', output: 'string' },
  Date: 'string',
  Time: 'string',
  Duration: 'string',
  UUID: 'string',
  Decimal: { input: 'number | string', output: 'string' },
  BigInt: { input: 'bigint | number | string', output: 'string' },
  JSON: 'unknown',
};
