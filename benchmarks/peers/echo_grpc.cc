// The peer in C++ gRPC: the callback API at its leanest. The method is raw: it gets bytes and
// returns the same bytes each time, so that protobuf costs nothing here.
//
// echo_grpc REPLY_FILE    listens on a free port of loopback and prints it

#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "riskd/v1/order_risk_service.grpc.pb.h"

namespace {

using Service = riskd::v1::OrderRiskService::WithRawCallbackMethod_CheckOrder<
    riskd::v1::OrderRiskService::Service>;

class Echo final : public Service {
  public:
    explicit Echo(const std::string& reply) {
        grpc::Slice slice(reply);
        reply_ = grpc::ByteBuffer(&slice, 1);
    }

    grpc::ServerUnaryReactor* CheckOrder(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer*,
                                         grpc::ByteBuffer* response) override {
        *response = reply_;
        grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }

  private:
    grpc::ByteBuffer reply_;
};

}  // namespace

int main(int count, char** words) {
    if (count != 2) {
        std::cerr << "usage: echo_grpc REPLY_FILE\n";
        return 2;
    }
    std::ifstream file(words[1], std::ios::binary);
    Echo echo(std::string(std::istreambuf_iterator<char>(file), {}));
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&echo);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (!server) {
        return 1;
    }
    std::cout << port << std::endl;
    server->Wait();
}
