"""gRPC servicers: translate, call the engine, translate back."""
