//! PKCS#11 tokens, each behind a worker process.
