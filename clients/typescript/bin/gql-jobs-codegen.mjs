#!/usr/bin/env node
import '../dist/codegen/main.mjs';
