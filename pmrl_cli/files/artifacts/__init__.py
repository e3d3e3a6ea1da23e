"""What pmrl itself writes: models, stores, exports, states and lists of suspects."""
