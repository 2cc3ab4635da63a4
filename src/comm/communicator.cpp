// SPDX-License-Identifier: MIT
#include "syncbn/communicator.hpp"

#include "comm/mpi_transport.hpp"
#include "comm/transport.hpp"

namespace syncbn {

Communicator::Communicator() : transport_(std::make_shared<comm::SingleTransport>()) {}

Communicator::Communicator(MPI_Comm comm) : transport_(comm::MpiTransport::duplicate_of(comm)) {}

int Communicator::rank() const noexcept { return transport_->rank(); }

int Communicator::size() const noexcept { return transport_->size(); }

}  // namespace syncbn
