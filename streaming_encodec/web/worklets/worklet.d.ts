// What an AudioWorklet's global scope has, for the type checker.
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
  constructor(options?: unknown);
}
declare function registerProcessor(name: string, processor: new (options?: any) => AudioWorkletProcessor): void;
declare const sampleRate: number;
